"""A row of the table of locations, with names for what it holds (:mod:`sif_writable.redirects.catalog`)."""

from _operator import itemgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class Fields(NamedTuple):
        """What a row holds."""

        variable: str
        kind: str
        when: str
        defaults: tuple[str, ...]
        counts_as_set: tuple[str, ...]
        form: str
        folder: str
        source: str

else:

    class Fields(tuple):
        """A NamedTuple made by hand: ``typing`` takes ten times as long as the table."""

        __slots__ = ()
        _make = classmethod(tuple.__new__)
        variable, kind, when, defaults, counts_as_set, form, folder, source = (
            property(itemgetter(index)) for index in range(8)
        )


class Row(Fields):
    """One known location."""

    __slots__ = ()

    @property
    def leaf(self) -> str:
        """The name of its folder in storage; empty for a switch."""
        return self.folder.replace("/", "-")

    @property
    def shape(self) -> str:
        """The form, without what follows the colon."""
        return self.form.partition(":")[0]
