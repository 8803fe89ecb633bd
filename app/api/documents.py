"""Pages to read and print: HTML in the language of the process, without scripts, on A4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, select_autoescape
from pydantic import BaseModel

from app import words
from app.elders.form_words import SERVICE
from app.elders.vocabulary import Service

_pages = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=select_autoescape(default=True)
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
}


def wants_page(request: Request) -> bool:
    """Whether somebody reads it rather than a program."""
    return "text/html" in request.headers.get("accept", "")


def page(template: str, **values: Any) -> HTMLResponse:
    text = _pages.get_template(template).render(
        lang=words.language(), service=lambda one: SERVICE[Service(one)], **values
    )
    return HTMLResponse(text, headers=_HEADERS)


def either(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: the model, or a page."""
    return {
        200: {
            "model": model,
            "description": "As JSON, or with `Accept: text/html` as a page to print.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        }
    }
