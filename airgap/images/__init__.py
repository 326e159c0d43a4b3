"""Container images for machines that reach package registries but no image registry.

They keep the official images' contracts (variables, files, paths, users, signals, exit codes), so whoever
uses them need not know which is which. `ensure` builds what is missing and says where it is.
"""

from airgap.images.builder import ensure
from airgap.images.recipes import RECIPES

__all__ = ["RECIPES", "ensure"]
