"""Images packed into tar files, in a folder or behind a web server."""

from shortback.data.shards.pack import pack_folder
from shortback.data.shards.source import load_shards

__all__ = ["load_shards", "pack_folder"]
