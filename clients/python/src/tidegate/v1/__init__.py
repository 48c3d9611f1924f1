"""The generated messages and stubs of the tidegate.v1 API."""
