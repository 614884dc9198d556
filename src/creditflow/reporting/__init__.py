"""From records to statistics, tables and figures.

Only what shows trained populations themselves imports torch. No number is made up here."""
