"""A contract double of Langfuse's web and worker, for machines where the real images cannot be had.

It is not Langfuse: it keeps the parts of Langfuse's contract that a stack and an SDK rely on, on the same
four stores, and says in every health answer that it is a double.
"""

VERSION = "3.225.4-double"
