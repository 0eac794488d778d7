"""Services, as systemd keeps them: installed, told how it goes, read in the journal."""
