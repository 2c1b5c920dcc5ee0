"""How a model comes out of a pickle: it is opened again, by its path."""

from lowbit._lowbit import Model


def open(path: str, recipe: str | None, context: int | None, threads: int | None) -> Model:
    """Opens a model as it was opened."""
    return Model.open(path, recipe=recipe, context=context, threads=threads)
