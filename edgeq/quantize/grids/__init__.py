"""Grid searches: which values a group of weights may take, and how its parameters are found."""
