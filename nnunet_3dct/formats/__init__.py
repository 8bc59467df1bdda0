"""Each file that crosses the house is written, read and checked in one module here."""
