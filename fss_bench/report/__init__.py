"""What people look at: tables, CSV, pictures of episodes, progress."""
