VERSION = "0.1.0"  # pyproject.toml says the same; images hold the code without what pip knows of it
