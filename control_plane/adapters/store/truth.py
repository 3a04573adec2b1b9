"""Answers joined with the newest outcome that speaks of each: the one way to ask what became of a prediction.

An outcome speaks of the prediction it names, or of its unit's predictions within a window before it.
"""

BEYOND = "1e15"  # a number further out counts as this one: sums of its powers stay within a double


def number(json: str) -> str:
    """SQL: a JSON number as a double; NULL of anything else. Beyond BEYOND, and closer to 0 than a double can be, it is
    the nearest number within: what customers or strangers' models send never stops whoever adds it up."""
    within = f"round(least(greatest(({json})::numeric, -{BEYOND}), {BEYOND}), 300)::float8"
    return f"CASE WHEN jsonb_typeof({json}) = 'number' THEN {within} END"


def measured(json: str) -> str:
    """SQL: the number, or 1 and 0 of a boolean; NULL of anything else."""
    yes_no = f"CASE WHEN ({json})::boolean THEN 1.0 ELSE 0.0 END"
    return f"CASE jsonb_typeof({json}) WHEN 'boolean' THEN {yes_no} ELSE {number(json)} END"


# Of `answers` (prediction_id, unit_id, received_at, ...), as `joined` with `truth`: JSON, NULL where nothing is known.
# Parameters: model, window (an interval; bind it as one).
JOINED = """
joined AS (
  SELECT a.*, t.value AS truth
  FROM answers a LEFT JOIN LATERAL (
    SELECT u.value FROM (
      SELECT o.value, o.observed_at, o.received_at FROM outcomes o
      WHERE o.prediction_id = a.prediction_id AND o.name = 'label' AND o.model = :model
      UNION ALL
      SELECT o.value, o.observed_at, o.received_at FROM outcomes o
      WHERE o.model = :model AND o.unit_id = a.unit_id AND o.name = 'label'
        AND o.observed_at >= a.received_at AND o.observed_at <= a.received_at + :window
    ) u ORDER BY u.observed_at DESC, u.received_at DESC LIMIT 1
  ) t ON true
)
"""

# What an answer of `predictions p` says. A stranger's model may answer whatever it likes: no number, no score.
SAID = f"""
coalesce(p.decision, p.output ->> 'label') AS said,
{number("p.output -> 'probability'")} AS probability,
{number("p.output -> 'value'")} AS value
"""
