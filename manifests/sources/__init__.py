"""The forms in which endpoints are declared. Each file of this package reads one form; `forms` lists them."""
