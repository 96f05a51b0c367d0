"""Command that submits a real file of leads through the API, row by row, and reports the outcome of each."""
