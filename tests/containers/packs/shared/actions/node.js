console.log(JSON.stringify({ environment: process.env.NODE_PATH, version: process.version }));
