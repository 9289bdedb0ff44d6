"""The error that is the user's to mend, where a more general one would not say whose it is."""


class DataError(ValueError):
    """The images cannot be had; the message names the file or place and the ways out."""
