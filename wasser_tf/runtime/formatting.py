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
    return "–" if share is None else f"{100 * share:.{digits}f} %"
