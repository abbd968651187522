"""What sites send, into the tables: inbox, one transaction, commit, answer."""
