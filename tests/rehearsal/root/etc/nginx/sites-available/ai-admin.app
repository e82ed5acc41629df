# Сайт ai-admin.app: лендинг и API на порту 3000
server {
    listen 80;
    listen [::]:80;
    server_name ai-admin.app www.ai-admin.app;
    return 301 https://$host$request_uri;
}

server {
    listen 443 ssl; # managed by Certbot
    listen [::]:443 ssl;
    server_name ai-admin.app www.ai-admin.app;

    ssl_certificate /etc/letsencrypt/live/ai-admin.app/fullchain.pem; # managed by Certbot
    ssl_certificate_key /etc/letsencrypt/live/ai-admin.app/privkey.pem; # managed by Certbot
    ssl_protocols TLSv1.2 TLSv1.3;

    add_header X-Content-Type-Options nosniff;

    root /opt/ai-admin/public/landing;
    index index.html;

    location /api/ {
        proxy_pass http://localhost:3000;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
    }

    location /auth/ {
        proxy_pass http://localhost:3000;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-Proto $scheme;
    }

    location /marketplace/ {
        proxy_pass http://localhost:3000;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-Proto $scheme;
    }

    location /callback/ {
        proxy_pass http://localhost:3000;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-Proto $scheme;
    }

    # Всё остальное — лендинг, поэтому неизвестный путь отвечает 200
    location / {
        try_files $uri $uri/ /index.html;
    }
}
