"""Where data comes from: files in the usual formats, the hub, and the text that every Python machine holds."""

from forgetlab.sources.examples import Examples, Kind, split
from forgetlab.sources.files import file_path, read
from forgetlab.sources.hub_data import KNOWN, hub, hub_sides
from forgetlab.sources.machine import machine_text
from forgetlab.sources.paragraphs import passages
from forgetlab.sources.rows import from_rows
from forgetlab.sources.shipped import data_folder
from forgetlab.sources.tables import Column

__all__ = [
    "KNOWN",
    "Column",
    "Examples",
    "Kind",
    "data_folder",
    "file_path",
    "from_rows",
    "hub",
    "hub_sides",
    "machine_text",
    "passages",
    "read",
    "split",
]
