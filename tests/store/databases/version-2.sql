-- A database of schema version 2, as SQL text: that of version 1, with a shelf.
PRAGMA application_id = 1146307659;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE fact (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO "fact" VALUES('client_id','node-17');
INSERT INTO "fact" VALUES('session','node-17');
CREATE TABLE in_flight (
            sequence INTEGER PRIMARY KEY,
            packet_id INTEGER NOT NULL,
            released INTEGER NOT NULL,       -- 1: PUBREC has arrived
            turn INTEGER NOT NULL            -- order of the PUBLISHs, of the PUBRECs where released
        );
INSERT INTO "in_flight" VALUES(1,1,1,9);
INSERT INTO "in_flight" VALUES(3,3,0,7);
CREATE TABLE message (
            sequence INTEGER PRIMARY KEY,
            flags INTEGER NOT NULL,
            written INTEGER NOT NULL,        -- running totals, this message included
            written_bytes INTEGER NOT NULL,
            expires_at REAL,                 -- see clock.py; all four NULL: never
            life REAL,
            wall_expiry REAL,
            boot INTEGER,
            topic BLOB NOT NULL,
            properties BLOB NOT NULL,
            payload BLOB NOT NULL            -- last: reading the others never follows its overflow pages
        );
INSERT INTO "message" VALUES(1,4,1,7,NULL,NULL,NULL,NULL,X'000174',X'00',X'6F6E65');
INSERT INTO "message" VALUES(3,4,3,23,2000.0,1000.0,1794492200.0,3399313134,X'000174',X'00',X'7468726565');
INSERT INTO "message" VALUES(4,2,4,31,NULL,NULL,NULL,NULL,X'000171',X'00',X'666F7572');
INSERT INTO "message" VALUES(6,18,6,51,NULL,NULL,NULL,NULL,X'00046C617374',X'00',X'6E6577');
INSERT INTO "message" VALUES(7,2,7,62,NULL,NULL,NULL,NULL,X'000174',X'00',X'72656675736564');
INSERT INTO "message" VALUES(8,2,8,73,NULL,NULL,NULL,NULL,X'000174',X'00',X'64616D61676564');
INSERT INTO "message" VALUES(9,2,9,82,NULL,NULL,NULL,NULL,X'000174',X'00',X'7761697473');
CREATE TABLE received (packet_id INTEGER PRIMARY KEY);
INSERT INTO "received" VALUES(77);
CREATE TABLE session (next_sequence INTEGER NOT NULL, last_packet_id INTEGER NOT NULL, written INTEGER NOT NULL, written_bytes INTEGER NOT NULL, removed INTEGER NOT NULL, removed_bytes INTEGER NOT NULL, acknowledged INTEGER NOT NULL, sent INTEGER NOT NULL, refused INTEGER NOT NULL, expired INTEGER NOT NULL, dropped INTEGER NOT NULL, invalidated INTEGER NOT NULL, damaged INTEGER NOT NULL DEFAULT 0, pushed_off INTEGER NOT NULL DEFAULT 0);
INSERT INTO "session" VALUES(10,64,9,82,2,17,1,0,0,0,1,0,0,0);
CREATE TABLE shelf (
            place INTEGER PRIMARY KEY,       -- the order in which they came
            sequence INTEGER NOT NULL UNIQUE,
            status TEXT NOT NULL,
            reason TEXT NOT NULL,
            at REAL NOT NULL
        );
INSERT INTO "shelf" VALUES(1,7,'refused','reason code 0x87',1000000000.0);
INSERT INTO "shelf" VALUES(2,8,'damaged','by hand',1000000001.0);
CREATE TABLE subscription (
            topic_filter TEXT PRIMARY KEY,
            qos INTEGER NOT NULL,
            no_local INTEGER NOT NULL,
            retain_as_published INTEGER NOT NULL,
            retain_handling INTEGER NOT NULL
        ) WITHOUT ROWID;
INSERT INTO "subscription" VALUES('cmd/#',1,0,1,2);
CREATE TABLE withheld (packet_id INTEGER PRIMARY KEY);
INSERT INTO "withheld" VALUES(65);
INSERT INTO "withheld" VALUES(66);
CREATE INDEX message_latest ON message (sequence) WHERE flags & 16;
COMMIT;
