"""From records to tables, figures, exports and the page of results.

No number is made up here. Only what shows trained populations, or releases networks, imports torch; everything else
reads records and what rules declare in their files.
"""
