"""The vocabulary of configuration files: what the node's TOML file and the rig's have in common.

====================  =================================================================================
file                  what is in it
====================  =================================================================================
``toml.py``           reading a small file; where its tables and keys stand
``faults.py``         every fault of a file at once: line, path, expected, found, suggestion; no secrets
``durations.py``      ``"10s"`` and back
``vocabulary.py``     the words a table is written in: durations, names, numbers with bounds, addresses
``convert.py``        the layer over msgspec: a table becomes an object, or faults
``schema.py``         JSON Schema out of the same tables, for editors
====================  =================================================================================

A bound is written once, in ``vocabulary.py``'s terms; the text of the error and the schema are made from it.
Needs the extra ``node``.
"""
