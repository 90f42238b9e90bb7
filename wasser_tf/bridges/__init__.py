"""Bridges to other libraries, one module a library; each imports its library only when it is used."""
