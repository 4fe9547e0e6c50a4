"""`python -m bookreader_backup_assets`: the same as `bookreader-backup`."""

from bookreader_backup_assets.cli.main import main

main()
