"""What scripts need of the machine they run on: folders, other programs, Debian's packages, locks, and how to tell a problem.

The standard library only; nothing here knows the stack.
"""
