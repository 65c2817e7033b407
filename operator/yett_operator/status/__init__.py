"""Whether policies are in force, told truthfully: from what nodes say to conditions."""
