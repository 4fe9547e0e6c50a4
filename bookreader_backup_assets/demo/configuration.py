"""BookReader's folder: compose file, `.env`, nginx, a real self-signed certificate, and the code."""

from __future__ import annotations

import os
import secrets
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from dotenv import dotenv_values

from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.demo.code import write_code

PATHS = ("docker-compose.yml", ".env", "nginx")
_HOST = "bookreader.example.org"


def write_configuration(folder: Path, *, now: datetime) -> dict[str, Secret]:
    """Fill `folder` unless it is there; return what its `.env` says.

    What is there stays: the second demo finds its configuration unchanged, as most nights do.
    """
    if not folder.exists():
        made = folder.with_name(folder.name + ".new")
        shutil.rmtree(made, ignore_errors=True)  # of a demo that was killed here
        (made / "nginx/certs").mkdir(parents=True)
        _write(made / "docker-compose.yml", _COMPOSE.encode(), 0o644)
        _write(made / ".env", _environment().encode(), 0o600)
        _write(made / "nginx/nginx.conf", _NGINX.encode(), 0o644)
        key, certificate = _certificate(now)
        _write(made / "nginx/certs/bookreader.key", key, 0o600)
        _write(made / "nginx/certs/bookreader.crt", certificate, 0o644)
        write_code(made)
        made.rename(folder)
    return {name: Secret(value or "") for name, value in dotenv_values(folder / ".env").items()}


def _write(path: Path, data: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)


def _environment() -> str:
    values = {
        "DB_NAME": "bookreader",
        "DB_USER": "bookreader_user",
        "DB_PASSWORD": secrets.token_urlsafe(24),
        "DB_READONLY_PASSWORD": secrets.token_urlsafe(24),
        "REDIS_PASSWORD": secrets.token_urlsafe(24),
        "SECRET_KEY": secrets.token_hex(32),
        "JWT_SECRET_KEY": secrets.token_hex(32),
        "PUSH_PRIVATE_KEY": secrets.token_urlsafe(32),
        "ALLOWED_HOSTS": _HOST,
        "SMTP_FROM": f'"BookReader AI <noreply@{_HOST}>"',
    }
    return "# made for the demo\n" + "".join(f"{name}={value}\n" for name, value in values.items())


def _certificate(now: datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _HOST)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - timedelta(days=1))
        .not_valid_after(now.astimezone(UTC) + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(pem)


_COMPOSE = """\
services:
  postgres:
    image: postgres:17-alpine
    container_name: bookreader_postgres
    environment:
      POSTGRES_DB: ${DB_NAME}
      POSTGRES_USER: ${DB_USER}
      POSTGRES_PASSWORD: ${DB_PASSWORD}
    volumes: ["postgres_data:/var/lib/postgresql/data"]
  redis:
    image: redis:7.4-alpine
    container_name: bookreader_redis
    command: >
      redis-server --requirepass ${REDIS_PASSWORD} --appendonly yes
      --maxmemory-policy allkeys-lru --save 900 1 300 10 60 10000
    volumes: ["redis_data:/data"]
  backend:
    build: ./backend
    container_name: bookreader_backend
    env_file: .env
    depends_on: [postgres, redis]
    volumes: ["./backend/storage:/app/storage"]
  celery-worker:
    build: ./backend
    container_name: bookreader_celery
    command: celery -A app.worker worker
    env_file: .env
    volumes: ["./backend/storage:/app/storage"]
  celery-beat:
    build: ./backend
    container_name: bookreader_beat
    command: celery -A app.worker beat
    env_file: .env
  frontend:
    build: ./frontend
    container_name: bookreader_frontend
  nginx:
    image: nginx:1.27-alpine
    container_name: bookreader_nginx
    ports: ["80:80", "443:443"]
    volumes:
      - ./nginx/nginx.conf:/etc/nginx/nginx.conf:ro
      - ./nginx/certs:/etc/nginx/certs:ro
      - ./backend/storage:/app/storage:ro
volumes:
  postgres_data:
  redis_data:
"""

_NGINX = f"""\
events {{}}
http {{
  server {{
    listen 443 ssl;
    server_name {_HOST};
    ssl_certificate /etc/nginx/certs/bookreader.crt;
    ssl_certificate_key /etc/nginx/certs/bookreader.key;
    client_max_body_size 100m;
    location /api/ {{ proxy_pass http://backend:8000; }}
    location /storage/ {{ alias /app/storage/; }}
    location / {{ proxy_pass http://frontend:3000; }}
  }}
}}
"""
