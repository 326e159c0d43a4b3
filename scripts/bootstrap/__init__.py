"""From a machine with Python and make to a running stack: `python3 -m scripts.bootstrap COMMAND`.

The standard library only: it runs before anything is installed.
"""
