"""Where the session and the queue are kept.

================  ===============================================================
``base.py``       the contract: changes, pages, policy; what a message counts for
``memory.py``     the store in memory: the reference for what any other has to do
``sqlite.py``     the store on disk: its thread, batches, failures
``pending.py``    what was handed over and is not written yet, folded
``database.py``   reading and writing the file, in the store's thread
``schema.py``     tables, columns, migrations
``files.py``      the files around it: lock, reserve, setting aside
``ownership.py``  whether a file is ours
``clock.py``      expiry times that outlive a restart
``inspect.py``    looking into a file that a node may be using
================  ===============================================================
"""
