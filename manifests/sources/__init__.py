"""The forms in which endpoints are declared: each file of this package reads one form, and `forms` names them all."""
