"""Pulumi, its plugins and MinIO from published Go modules, for machines that reach no download site.

`ensure` builds one binary, or finds it in the cache; `install` lays out a folder from which Pulumi runs.
"""

from airgap.toolchain.builder import ensure
from airgap.toolchain.home import STAMP, install
from airgap.toolchain.parts import PARTS

__all__ = ["PARTS", "STAMP", "ensure", "install"]
