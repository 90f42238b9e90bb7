"""Numbers as text, in one format everywhere."""


def percent(share: float | None, digits: int = 2) -> str:
    """Returns a share in per cent, with a space before the sign.

    >>> percent(0.12345), percent(0.5, 1), percent(None)
    ('12.35 %', '50.0 %', '–')

    Args:
      share: The share, such as 0.25 for 25 %; None if it is unknown.
      digits: Digits after the decimal point.

    Returns:
      The text; a dash for None.
    """
    return "–" if share is None else f"{percentage(share, digits)} %"


def percentage(share: float, digits: int = 2) -> str:
    """Returns a share in per cent without the sign. Shares of n images that are equal up to float64 give equal text.

    >>> percentage(0.5975, 1), percentage(1 - 0.4025, 1)
    ('59.8', '59.8')

    Args:
      share: The share, such as 0.25 for 25 %.
      digits: Digits after the decimal point.
    """
    # Rounded first, because 59.75 less one unit of float64 would otherwise be rounded down.
    return f"{round(100 * share, 9):.{digits}f}"
