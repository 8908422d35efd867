"""What an invocation of a Lambda handler costs: undecorated, with the library, and with Powertools."""
