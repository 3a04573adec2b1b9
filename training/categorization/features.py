"""Card statement lines -> final features: nothing to add, the model reads the text. Logged with every version."""

import pandas as pd


def features(raw: pd.DataFrame, *, label_delay_s: int) -> pd.DataFrame:
    """The rows as they are. `label_delay_s` is not used: no feature is made of labels."""
    return raw
