"""The sequence language: documents, validation, expressions and templates. Pure: no I/O, clock or randomness."""
