"""HTML pages, plots, and pictures of samples."""
