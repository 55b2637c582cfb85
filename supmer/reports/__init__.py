"""What people look at: `drawing` makes figures, `tables` tables, `page` HTML of both; they do not know what they show."""
