"""Phone numbers: checked and kept in E.164."""

from __future__ import annotations

import phonenumbers

from app.errors import InvalidInput


def normal_phone(text: str, *, field: str = "phone") -> str:
    """A number in E.164; without a country code it is Chinese. Raises `InvalidInput`."""
    if "*" in text:
        raise InvalidInput(
            "a masked number, as answers show it: leave it out to keep the number, or give it whole", field=field
        )
    try:
        number = phonenumbers.parse(text, "CN")
    except phonenumbers.NumberParseException:
        raise InvalidInput("not a phone number; for example 13800000000 or 0533-5180000", field=field) from None
    if not phonenumbers.is_possible_number(number):
        raise InvalidInput("too long or too short for a phone number", field=field)
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
