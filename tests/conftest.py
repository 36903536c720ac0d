"""Every test runs with the shapes of signatures checked: the hook must be there before the packages are imported."""

from jaxtyping import install_import_hook

# The numeric tower is the standard reading of annotations: an int is a float.
_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

install_import_hook(["datasets", "models", "systems", "utils"], _CHECKER)
