"""The vocabulary of configuration files, shared by the node's TOML file and the rig's.

====================  =================================================================================
File                  Contents
====================  =================================================================================
``toml.py``           reading a small file; the lines of its tables and keys
``faults.py``         every fault of a file at once: line, path, expected, found, suggestion; no secrets
``durations.py``      ``"10s"`` and back
``vocabulary.py``     types of the values in a table: durations, names, numbers with bounds, addresses
``convert.py``        the layer over msgspec: a table becomes an object, or faults
``schema.py``         JSON Schema out of the same tables, for editors
====================  =================================================================================

A bound is written once, with ``vocabulary.py``; the text of the error and the schema are made from it.
Needs the extra ``node``.
"""
