-- A database of schema version 1, as SQL text: one message in each state, a session, counters.
PRAGMA application_id = 1146307659;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE fact (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO "fact" VALUES('client_id','node-17');
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
CREATE TABLE received (packet_id INTEGER PRIMARY KEY);
INSERT INTO "received" VALUES(77);
CREATE TABLE session (next_sequence INTEGER NOT NULL, last_packet_id INTEGER NOT NULL, written INTEGER NOT NULL, written_bytes INTEGER NOT NULL, removed INTEGER NOT NULL, removed_bytes INTEGER NOT NULL, acknowledged INTEGER NOT NULL, sent INTEGER NOT NULL, refused INTEGER NOT NULL, expired INTEGER NOT NULL, dropped INTEGER NOT NULL, invalidated INTEGER NOT NULL);
INSERT INTO "session" VALUES(7,64,6,51,2,17,1,0,0,0,1,0);
CREATE TABLE subscription (
            topic_filter TEXT PRIMARY KEY,
            qos INTEGER NOT NULL,
            no_local INTEGER NOT NULL,
            retain_as_published INTEGER NOT NULL,
            retain_handling INTEGER NOT NULL
        ) WITHOUT ROWID;
INSERT INTO "subscription" VALUES('cmd/#',1,0,1,2);
CREATE INDEX message_latest ON message (sequence) WHERE flags & 16;
COMMIT;
