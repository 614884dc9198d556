"""From records to statistics, tables and figures. Nothing here imports torch, and no number is made up here."""
