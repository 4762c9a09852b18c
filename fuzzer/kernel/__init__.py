"""The only package that touches the operating system. Everything opened here is a context manager."""
