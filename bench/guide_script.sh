#!/bin/bash
# The guide's "Automated Backup Script", one part per call, repaired just so much that what it leaves
# behind restores. Its commands and choices are kept: what is written, with which options, compressed how.
#
# Adapted: `docker exec` and `docker cp` became the same commands on this machine.
# Repaired:
#   - BGSAVE is waited for until it has ended well; it was `sleep 5`, which copied the previous file
#   - redis-cli -e, and its password from the environment: an error reply ended with status 0
#   - gpg gets its passphrase without a terminal
#   - temporary folders are private and removed before they are used: a left-over one nested the archive
#   - the manifest does not hash itself
# Left out: `find -mtime +30 -delete` and the upload.

set -e -o pipefail

part="$1"
: "${DATE:?}" "${BACKUP_DIR:?}" "${TMPDIR:?}"
mkdir -p "$BACKUP_DIR"/{postgresql,redis,storage,config}

backup_postgresql() {
    pg_dump -d "$DB_NAME" -F c -b -v -f "$TMPDIR/backup.dump"
    cp "$TMPDIR/backup.dump" "$BACKUP_DIR/postgresql/bookreader_${DATE}.dump"
    pg_dump -d "$DB_NAME" --clean --if-exists > "$BACKUP_DIR/postgresql/bookreader_${DATE}.sql"
    gzip "$BACKUP_DIR/postgresql/bookreader_${DATE}.sql"
}

persistence() {
    redis-cli -e -h 127.0.0.1 -p "$REDIS_PORT" INFO persistence | tr -d '\r' | sed -n "s/^$1://p"
}

backup_redis() {
    local before
    before=$(persistence rdb_last_save_time)
    redis-cli -e -h 127.0.0.1 -p "$REDIS_PORT" BGSAVE
    while [ "$(persistence rdb_bgsave_in_progress)" != 0 ] || [ "$(persistence rdb_last_save_time)" = "$before" ]; do
        [ "$(persistence rdb_last_bgsave_status)" = ok ]
        sleep 0.1
    done
    [ "$(persistence rdb_last_bgsave_status)" = ok ]
    cp "$REDIS_DIR/dump.rdb" "$BACKUP_DIR/redis/dump_${DATE}.rdb"
    gzip "$BACKUP_DIR/redis/dump_${DATE}.rdb"
}

backup_storage() {
    rm -rf "$TMPDIR/storage_backup"
    cp -r "$STORAGE_DIR" "$TMPDIR/storage_backup"
    tar -czf "$BACKUP_DIR/storage/storage_${DATE}.tar.gz" -C "$TMPDIR" storage_backup
    rm -rf "$TMPDIR/storage_backup"
}

backup_config() {
    rm -rf "$TMPDIR/config_backup"
    mkdir -p "$TMPDIR/config_backup"
    cp "$CONFIG_DIR/docker-compose.yml" "$TMPDIR/config_backup/"
    cp -r "$CONFIG_DIR/nginx" "$TMPDIR/config_backup/"
    cp "$CONFIG_DIR/.env" "$TMPDIR/config_backup/.env.backup"
    tar -czf "$TMPDIR/config_${DATE}.tar.gz" -C "$TMPDIR" config_backup
    gpg --batch --no-tty --pinentry-mode loopback --passphrase-file "$PASSPHRASE_FILE" \
        --symmetric --cipher-algo AES256 \
        --output "$BACKUP_DIR/config/config_${DATE}.tar.gz.gpg" "$TMPDIR/config_${DATE}.tar.gz"
    rm "$TMPDIR/config_${DATE}.tar.gz"
    rm -rf "$TMPDIR/config_backup"
    gpgconf --kill all
}

create_manifest() {
    cat > "$TMPDIR/manifest" <<EOF
BookReader AI Backup Manifest
=============================
Date: $DATE
Hostname: $(hostname)
Backup Directory: $BACKUP_DIR

Components:
-----------
PostgreSQL: $(ls -lh "$BACKUP_DIR/postgresql/bookreader_${DATE}.dump" 2>/dev/null | awk '{print $5}')
Redis: $(ls -lh "$BACKUP_DIR/redis/dump_${DATE}.rdb.gz" 2>/dev/null | awk '{print $5}')
Storage: $(ls -lh "$BACKUP_DIR/storage/storage_${DATE}.tar.gz" 2>/dev/null | awk '{print $5}')
Config: $(ls -lh "$BACKUP_DIR/config/config_${DATE}.tar.gz.gpg" 2>/dev/null | awk '{print $5}')

Database Statistics:
-------------------
$(psql -X -d "$DB_NAME" -c "
SELECT
    'Users: ' || COUNT(*) FROM users
    UNION ALL
    SELECT 'Books: ' || COUNT(*) FROM books
    UNION ALL
    SELECT 'Images: ' || COUNT(*) FROM generated_images;
")

Checksums (SHA256):
------------------
$(cd "$BACKUP_DIR" && find . -name "*${DATE}*" -type f -exec sha256sum {} \;)
EOF
    mv "$TMPDIR/manifest" "$BACKUP_DIR/backup_manifest_${DATE}.txt"
}

case "$part" in
    postgresql | redis | storage | config) "backup_$part" ;;
    manifest) create_manifest ;;
    *) echo "no such part: $part" >&2; exit 2 ;;
esac
