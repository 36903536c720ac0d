"""Native kernels (being written)."""


def obstacle() -> str:
    """Why there are no native kernels, or nothing."""
    return "the native kernels are not built yet"
