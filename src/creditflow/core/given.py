"""Models that a user gives: what stands where a backbone stands elsewhere. It imports nothing heavy."""

#: In paths, records and tables; the name of the model stands where a rule stands.
GIVEN_MODELS = "given_models"
