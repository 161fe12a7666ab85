"""The store of a client: its session and its queue, in memory or in an SQLite file.

Read ``base.py`` first, then ``memory.py``: it is the contract in its shortest form.

================  ====================================================================================
``base.py``       the contract :class:`Store`, its changes, :class:`StorePolicy`
``memory.py``     the store without a file; no thread, no lock of its own
``sqlite.py``     :class:`SqliteStore`: owns the thread that writes, and the lock on the changes it waits for
``pending.py``    changes that are not on disk yet, folded together; guarded by that lock
``database.py``   reads and writes the file; only in the store's thread
``access.py``     the connection to that file, the best one that the disk allows
``reading.py``    reads that file, and tells damaged rows from sound ones
``checksum.py``   of a row
``wal.py``        what SQLite drops of a damaged log
``shelf.py``      messages in that file that are not sent any more
``schema.py``     the tables, and the migration of older ones
``clock.py``      expiry of messages across reboots and steps of the wall clock
``files.py``      the files beside the database: lock, reserve, damaged copies
``voucher.py``    what the lock says of the file that was made with it
``place.py``      notices that the files of an open store were removed or replaced, and puts them back
``ownership.py``  refuses a file that is not a store, before anything is changed
``inspect.py``    reads the file of a store from outside: ``device-sdk queue``
================  ====================================================================================
"""
