"""Templates: templates/<remote path>.j2 becomes the text for <remote path>."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent.parent / "templates"
_environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True)


def render(path: str, **values: object) -> str:
    """An unknown name in the template is an error, not an empty text."""
    return _environment.get_template(f"{path}.j2").render(**values)
