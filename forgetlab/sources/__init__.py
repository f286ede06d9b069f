"""Where data comes from: files in the usual formats, and the text that every Python machine holds."""

from forgetlab.sources.examples import Examples, Kind, split
from forgetlab.sources.files import read
from forgetlab.sources.machine import machine_text
from forgetlab.sources.paragraphs import passages
from forgetlab.sources.tables import Column

__all__ = ["Column", "Examples", "Kind", "machine_text", "passages", "read", "split"]
