const { Pool } = require('pg');
const { createClient } = require('redis');
const config = require('./config');

const pool = new Pool(config.postgres);
pool.on('error', (error) => console.error('postgres:', error.message));

const redis = createClient(config.redis);
redis.on('error', (error) => console.error('redis:', error.message));
redis.connect().catch(() => {});

module.exports = { pool, redis };
