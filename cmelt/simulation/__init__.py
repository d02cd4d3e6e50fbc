"""A heart vector in three dimensions, seen by twelve leads, with findings, noise and a report in several languages."""
